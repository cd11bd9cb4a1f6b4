"""The tests; helpers that they share are imported as `tests.NAME`."""
