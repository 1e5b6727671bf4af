"""What the tests stand on: real SSH servers, a private environment, interpreters, and the leak check."""
