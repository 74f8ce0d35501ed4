"""Models of known families, GGUF files and folders of Hugging Face, to a Graph by way of YAML."""
