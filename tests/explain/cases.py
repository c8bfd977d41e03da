"""Settings of the tests of explanations."""

# Masks about as large as a hippocampus.
SMALL = {"sigma_light": 12.0, "sigma_shadow": 12.0, "unit": "mm"}
