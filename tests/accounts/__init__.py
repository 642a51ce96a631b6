"""Accounts without doors, and the practice: a whole house over HTTP whose clock is moved by hand."""
