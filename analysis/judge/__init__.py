"""May a fit be believed?"""
