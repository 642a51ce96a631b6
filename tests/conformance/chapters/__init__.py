"""The chapters of the walk, one file each; every chapter brings its own people."""
