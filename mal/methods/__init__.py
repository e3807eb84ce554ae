"""Methods that learn masks from weak annotations, and the baselines beside them."""
