"""Full-ranking evaluation, beside the baselines, over all users."""
