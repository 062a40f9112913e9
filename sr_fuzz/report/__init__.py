"""Output of campaigns and measurements, for the terminal and for pages."""
