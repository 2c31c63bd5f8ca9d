"""The address that several balancers share: keepalived moves it to one that answers."""
