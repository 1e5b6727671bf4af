"""Strangers' own test suites, each against a local kernel and against a remote one; run by scripts/foreign."""
