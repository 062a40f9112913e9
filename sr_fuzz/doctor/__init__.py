"""Looking at the installation."""
