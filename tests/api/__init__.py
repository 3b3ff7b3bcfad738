"""Tests of `dagbok.api`."""
