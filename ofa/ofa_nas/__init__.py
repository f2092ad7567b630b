"""Once-for-all spaces, their accuracy models, and the search over them."""
