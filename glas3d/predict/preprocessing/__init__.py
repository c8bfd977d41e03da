"""What a bundle says is done to its scans before the network, kept so that masks can come first."""
