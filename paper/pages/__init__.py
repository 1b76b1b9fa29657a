"""Pages of the documentation: what is generated in them, and the site that is built of them."""
