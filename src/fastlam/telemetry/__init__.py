"""What is known of invocations afterwards: log lines as Lambda writes them, kept in memory within bounds."""
