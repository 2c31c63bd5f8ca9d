"""HAProxy as the balancer. What it offers stands in program.py."""
