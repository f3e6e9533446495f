"""What should be tried next, and what record does every trial leave?"""
