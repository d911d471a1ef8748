"""The inputs of a request, checked and normalised: messages, tools, schemas, files, images."""
