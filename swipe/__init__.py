"""What a swipe, a keyboard layout and a word are: numpy only, imports nothing of ours."""
