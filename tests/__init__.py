"""The tests: unit/, transport/ (one contract, every transport), e2e/ (real servers, real front ends), bench/."""
