"""Is the map right? Doors to the libraries that judge explanations: `captum` and `quantus`, each an extra."""
