"""A provider whose generations run on other gateways."""
