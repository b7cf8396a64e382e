"""The models whose files are read and refused."""

from arraylstm import LSTM2002, NextItemModel, Vocabulary

LABELS = Vocabulary(["a", "b", 3, "<unk>"], unknown="<unk>")


def make_models():
    """A model of each kind that files hold, with labels."""
    sizes = {"num_layers": 2, "embedding_size": 3, "vocabulary": LABELS}
    lstm2002 = LSTM2002(tknzr=LABELS, d_blk=2, d_emb=3, n_blk=3, n_lyr=2, p_hid=0.5, init_upper=0.9)
    lstm2002.params_init()
    return {
        "attention": NextItemModel("attention", 4, 6, k=2, **sizes).eval(),
        "tied": NextItemModel("array", 4, 6, k=2, tied=True, **sizes).eval(),
        "lstm2002": lstm2002.eval(),
    }
