"""Tests against real SSH servers on loopback."""
