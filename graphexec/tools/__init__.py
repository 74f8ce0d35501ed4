"""What is done with graphs and plans beyond running them."""
