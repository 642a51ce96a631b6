"""The programs outside the house, tried as people use them."""
