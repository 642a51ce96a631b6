"""The house rules as tests: what no tool checks and no reviewer should have to."""
