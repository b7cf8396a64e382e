"""Attack arraylstm-serve while another client is measured; `hostile/app.py` is the program.

The victim and the attacker are processes that import this file too, so it imports nothing for them.
"""

if __name__ == "__main__":
    from hostile.app import app

    from arraylstm import console

    console.run(app)
