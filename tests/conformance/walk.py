"""Walks over the engine: the same tokens by any road must give the same bytes.

Some token lists ("tracks"; most share a prefix with the first) are fed token by token through one thread first; what
came out then is the canon. A walk feeds sessions along the tracks by prefill chunks, steps in company, forks, cuts,
captures and restores, and holds logits, hidden state and KV to the canon after every move.
"""

import hashlib
from dataclasses import replace

import numpy as np

from conformance.make_models import token_list

LENGTH = 150
BLOCK = 64


def tracks(vocabulary_size):
    """Lists of LENGTH ids. They leave the first one in each block and at a border; the last is alone."""
    first, *others = (token_list(vocabulary_size, LENGTH, seed) for seed in range(31, 39))
    leave = (70, 128, 20, 100, 45, 62, 0)
    return [first, *(first[:n] + other[n:] for n, other in zip(leave, others, strict=True))]


def kv_digest(chunks):
    """blake2b hex over the chunks' places, and their arrays' names, types, shapes and bytes."""
    out = hashlib.blake2b(digest_size=16)
    for chunk in chunks:
        out.update(f"{chunk.start}:{chunk.stop}\n".encode())
        for name in sorted(chunk.arrays):
            array = chunk.arrays[name]
            assert array.flags.c_contiguous
            out.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            out.update(array.tobytes())
    return out.hexdigest()


class Canon:
    """What each prefix of each track gives when it is fed one token at a time, alone, through one thread."""

    def __init__(self, model):
        self.tracks = tracks(model.vocabulary_size)
        self.logits, self.hidden, self.tails = [], [], []
        for track in self.tracks:
            session = model.new_session(b"d" * 16)
            logits, hidden, tails = [None], [None], [None]
            for i, token in enumerate(track):
                model.step([session], [token])
                logits.append(session.logits.tobytes())
                hidden.append(session.hidden.tobytes())
                tails.append(kv_digest(model.capture(session, i // BLOCK * BLOCK).chunks))
            self.logits.append(logits)
            self.hidden.append(hidden)
            self.tails.append(tails)

    def common(self, i, j):
        """Length of the prefix that tracks i and j share."""
        a, b = self.tracks[i], self.tracks[j]
        return next((n for n, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), LENGTH)


class Walker:
    """One session on one track."""

    def __init__(self, canon, model, track):
        self.canon, self.model, self.track = canon, model, track
        self.session = model.new_session(b"d" * 16)

    @property
    def left(self):
        return LENGTH - self.session.position

    def next_tokens(self, count):
        return self.canon.tracks[self.track][self.session.position :][:count]

    def check(self, may_lack_logits=False):
        """Tokens, logits and hidden state are the canon's."""
        session, n = self.session, self.session.position
        assert list(session.tokens) == self.canon.tracks[self.track][:n]
        if session.logits is None:
            assert may_lack_logits or n == 0
            return
        assert session.logits.dtype == np.float32
        assert session.logits.tobytes() == self.canon.logits[self.track][n]
        assert session.hidden.tobytes() == self.canon.hidden[self.track][n]

    def check_kv(self):
        """The captured bytes are the canon's, block by block."""
        chunks = self.model.capture(self.session).chunks
        assert [(c.start, c.stop) for c in chunks] == [
            (a, min(a + BLOCK, self.session.position)) for a in range(0, self.session.position, BLOCK)
        ]
        for chunk in chunks:
            assert kv_digest([chunk]) == self.canon.tails[self.track][chunk.stop]

    def switch(self, wish):
        """Go over to another track that the tokens so far belong to as well, where there is one."""
        tracks = range(len(self.canon.tracks))
        open_tracks = [t for t in tracks if self.canon.common(self.track, t) >= self.session.position]
        self.track = open_tracks[wish % len(open_tracks)]

    def prefill(self, count, batch_size):
        tokens = self.next_tokens(count)
        assert self.model.prefill(self.session, tokens, batch_size=batch_size) == len(tokens)
        self.check(may_lack_logits=not tokens)

    def prefill_cancelled(self, count, batch_size, patience):
        """Feed until a cancel after `patience` questions; whole chunks were fed, and the session is sound."""
        tokens, before, asked = self.next_tokens(count), self.session.position, []

        def cancel():
            asked.append(1)
            return len(asked) > patience

        fed = self.model.prefill(self.session, tokens, batch_size=batch_size, cancel=cancel)
        assert 0 <= fed <= len(tokens)
        assert self.session.position == before + fed
        self.check(may_lack_logits=True)

    def fork(self, wish):
        """A second walker that shares the blocks."""
        other = Walker.__new__(Walker)
        other.canon, other.model, other.track = self.canon, self.model, self.track
        other.session = self.session.fork()
        other.check(may_lack_logits=self.session.logits is None)
        other.switch(wish)
        return other

    def truncate(self, n, wish):
        before = self.session.position
        n = min(n, before)
        self.session.truncate(n)
        assert self.session.position == n
        assert n == before or self.session.logits is None
        self.check(may_lack_logits=True)
        self.switch(wish)

    def restore(self, model, seam):
        """Capture and restore on another model; with a seam, from pieces that were captured at two times."""
        state, seam = self.model.capture(self.session), min(seam, self.session.position)
        if 0 < seam < self.session.position:
            early = self.session.fork()
            early.truncate(seam)
            head, tail = self.model.capture(early).chunks, self.model.capture(self.session, seam).chunks
            state = replace(state, chunks=(*head, *tail))
        had_logits = self.session.logits is not None
        self.model, self.session = model, model.restore(state)
        assert self.session.dice_key == b"d" * 16
        assert (self.session.logits is not None) == had_logits
        self.check(may_lack_logits=not had_logits)


def walk(canon, models, starts, moves):
    """Set walkers out at the positions `starts`, then run the moves: (kind, which, number, batch size, track)."""
    walkers = [Walker(canon, models[i % len(models)], track) for i, track in enumerate((0, 1, 7))]
    for walker, start in zip(walkers, starts, strict=True):
        walker.prefill(start, 64)
    for kind, which, number, batch_size, wish in moves:
        walker = walkers[which % len(walkers)]
        if kind == "prefill":
            walker.prefill(number, batch_size)
        elif kind == "cancel":
            walker.prefill_cancelled(number, batch_size, which)
        elif kind == "step":
            for _ in range(min(number, 6)):
                company = [w for w in walkers if w.model is walker.model and w.left]
                if company:
                    company[0].model.step([w.session for w in company], [w.next_tokens(1)[0] for w in company])
                for w in company:
                    w.check()
        elif kind == "fork":
            walkers.append(walker.fork(wish))
            if len(walkers) > 6:
                walkers.pop(0).check_kv()
        elif kind == "truncate":
            walker.truncate(number, wish)
        elif kind == "rewind":  # the other walkers' blocks must not see what is written over the shared past
            walkers.append(walker.fork(0))
            walker.prefill(70, batch_size)
            walker.truncate(number, wish)
            walker.prefill(number, batch_size)
        elif kind == "restore":
            walker.restore(models[wish % len(models)], number)
    for walker in walkers:
        walker.check(may_lack_logits=True)
        walker.check_kv()
