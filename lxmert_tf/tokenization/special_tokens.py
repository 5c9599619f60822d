"""The vocabulary of a tokenizer and its special tokens: look them up, change them, add others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, overload

from tokenizers import AddedToken, Tokenizer, processors

from lxmert_tf.tokenization.vocabulary import SPECIAL_NAMES, added_token, brief, one_of, token_text


class _SpecialToken:
    """A special token: its text, or None. One that the vocabulary lacks is added behind it when it is set."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, tokenizer: Any, owner: type | None = None) -> Any:
        return self if tokenizer is None else tokenizer._special[self._name]

    def __set__(self, tokenizer: Any, token: str | AddedToken | None) -> None:
        tokenizer._set_special(self._name, token)


class _SpecialTokenId:
    """The id of a special token, or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name.removesuffix("_id")

    def __get__(self, tokenizer: Any, owner: type | None = None) -> Any:
        if tokenizer is None:
            return self
        token = tokenizer._special[self._name]
        return None if token is None else tokenizer.convert_tokens_to_ids(token)

    def __set__(self, tokenizer: Any, index: int | None) -> None:
        tokenizer._set_special(self._name, None if index is None else tokenizer.convert_ids_to_tokens(index))


class SpecialTokens:
    """What a tokenizer knows of its tokens. Changing them is not for threads that share a tokenizer."""

    SPECIAL_TOKENS_ATTRIBUTES: ClassVar[list[str]] = [*SPECIAL_NAMES, "additional_special_tokens"]

    bos_token, bos_token_id = _SpecialToken(), _SpecialTokenId()
    eos_token, eos_token_id = _SpecialToken(), _SpecialTokenId()
    unk_token, unk_token_id = _SpecialToken(), _SpecialTokenId()
    sep_token, sep_token_id = _SpecialToken(), _SpecialTokenId()
    pad_token, pad_token_id = _SpecialToken(), _SpecialTokenId()
    cls_token, cls_token_id = _SpecialToken(), _SpecialTokenId()
    mask_token, mask_token_id = _SpecialToken(), _SpecialTokenId()
    pad_token_type_id = 0

    def __init__(self, backend: Tokenizer):
        self._backend = backend
        self._variants: dict[bool, Tokenizer] = {}  # of the backend, made when a text needs one
        self._special: dict[str, str | None] = dict.fromkeys(SPECIAL_NAMES)
        self._additional: list[str] = []

    # The vocabulary

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The `tokenizers.Tokenizer` beneath."""
        return self._backend

    @property
    def decoder(self) -> Any:
        """The decoder of `backend_tokenizer`."""
        return self._backend.decoder

    @property
    def vocab_size(self) -> int:
        """The number of tokens in the vocabulary, without added ones; `len(tokenizer)` counts all."""
        return self._backend.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=True)

    def get_vocab(self) -> dict[str, int]:
        """Every token, added ones too, with its id."""
        return self._backend.get_vocab(with_added_tokens=True)

    vocab = property(get_vocab, doc="Every token, added ones too, with its id.")

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The special and other added tokens by id: what is found in a text before anything else."""
        return dict(sorted(self._backend.get_added_tokens_decoder().items()))

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The ids of `added_tokens_decoder` by token."""
        return {token.content: index for index, token in self.added_tokens_decoder.items()}

    def get_added_vocab(self) -> dict[str, int]:
        """The special and other added tokens with their ids."""
        return self.added_tokens_encoder

    # Added tokens

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Adds tokens behind the vocabulary, for which a model's embeddings must be resized: to `len(tokenizer)`.

        Args:
            new_tokens: a token or several. Found in a text before word pieces, after it is cleaned and lower-cased;
                `tokenizers.AddedToken` has options for that.
            special_tokens: they are found in the text as it was given, and `skip_special_tokens` of upstream leaves
                them out; `add_special_tokens` gives them a name too.

        Returns:
            By how many the vocabulary has grown: tokens that it had are added once more to no effect.
        """
        before = len(self)
        tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else new_tokens
        added = [added_token(token, special_tokens) for token in tokens]
        (self._backend.add_special_tokens if special_tokens else self._backend.add_tokens)(added)
        self._variants.clear()
        return len(self) - before

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_additional_special_tokens: bool = True
    ) -> int:
        """Sets special tokens by name, and adds those that the vocabulary lacks behind it.

        Args:
            special_tokens_dict: `{"eos_token": token}` and the like; `"additional_special_tokens"` takes a list.
            replace_additional_special_tokens: rather than extend the list that is there. Tokens that leave it stay in
                the vocabulary.

        Returns:
            By how many the vocabulary has grown.

        Raises:
            ValueError: a name that is none of `SPECIAL_TOKENS_ATTRIBUTES`. TypeError: something other than tokens.
        """
        before = len(self)
        for name in special_tokens_dict:
            one_of("The name of a special token", name, self.SPECIAL_TOKENS_ATTRIBUTES)
        for name, value in special_tokens_dict.items():
            if name != "additional_special_tokens":
                self._set_special(name, value)
            elif replace_additional_special_tokens:
                self.additional_special_tokens = value
            else:
                self._add_additional(value)
        return len(self) - before

    # Special tokens

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a name."""
        return list(self._additional)

    @additional_special_tokens.setter
    def additional_special_tokens(self, tokens: Sequence[str | AddedToken] | None) -> None:
        self._additional, before = [], self._additional
        try:
            self._add_additional(tokens or ())
        except (TypeError, ValueError):
            self._additional = before
            raise

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        """The ids of `additional_special_tokens`."""
        return self.convert_tokens_to_ids(self._additional)

    @additional_special_tokens_ids.setter
    def additional_special_tokens_ids(self, ids: Sequence[int] | None) -> None:
        self.additional_special_tokens = self.convert_ids_to_tokens(list(ids or ()))

    def _add_additional(self, tokens: Sequence[str | AddedToken]) -> None:
        if not isinstance(tokens, (list, tuple)):
            raise TypeError(f"additional_special_tokens must be a list of tokens, got {brief(tokens)}.")
        special = [self._special_token(token) for token in tokens]
        self.add_tokens(special, special_tokens=True)
        self._additional = list(dict.fromkeys([*self._additional, *(token.content for token in special)]))

    def _set_special(self, name: str, token: Any) -> None:
        if token is None:
            self._special[name] = None
            return
        special = self._special_token(token)
        if name == "unk_token":
            if self._backend.model.token_to_id(special.content) is None:
                raise ValueError(
                    f"The vocabulary lacks the unknown token {special.content!r}: pass unk_token=... as it spells it."
                )
            self._backend.model.unk_token = special.content
        self.add_tokens([special], special_tokens=True)
        self._special[name] = special.content
        if self.sep_token is not None and self.cls_token is not None:
            sep, cls = (self.sep_token, self.sep_token_id), (self.cls_token, self.cls_token_id)
            self._backend.post_processor = processors.BertProcessing(sep, cls)

    def _special_token(self, token: Any) -> AddedToken:
        """The AddedToken that is meant: given as text, one that is there keeps its options."""
        index: Any = self._backend.token_to_id(token) if isinstance(token, str) else None
        if not token_text(token):
            raise ValueError(f"A special token must have characters, got {brief(token)}.")
        return added_token(self._backend.get_added_tokens_decoder().get(index, token), special=True)

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """The special tokens that are set, by name."""
        named = {name: token for name, token in self._special.items() if token}
        return named | ({"additional_special_tokens": self.additional_special_tokens} if self._additional else {})

    @property
    def special_tokens_map_extended(self) -> dict[str, Any]:
        """`special_tokens_map` with an AddedToken for each text."""
        added = {token.content: token for token in self.added_tokens_decoder.values()}
        return {
            name: [added[each] for each in token] if isinstance(token, list) else added[token]
            for name, token in self.special_tokens_map.items()
        }

    @property
    def all_special_tokens(self) -> list[str]:
        """The special tokens, each once."""
        return list(dict.fromkeys([*filter(None, self._special.values()), *self._additional]))

    @property
    def all_special_tokens_extended(self) -> list[AddedToken]:
        """`all_special_tokens` as AddedToken."""
        added = {token.content: token for token in self.added_tokens_decoder.values()}
        return [added[token] for token in self.all_special_tokens]

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    # Tokens and ids

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...

    @overload
    def convert_tokens_to_ids(self, tokens: list[str] | tuple[str, ...]) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> int | list[int]:
        """The id of a token, or of each token of a list; unknown ones get `unk_token_id`."""
        if isinstance(tokens, str):
            id_of: Callable[[str], Any] = self._backend.token_to_id
            index = id_of(tokens)
            return id_of(self._backend.model.unk_token) if index is None else index
        if not isinstance(tokens, (list, tuple)) or not all(isinstance(token, str) for token in tokens):
            raise TypeError(f"tokens must be a string or a list of strings, got {brief(tokens)}.")
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or of each id of a list or int[T] array.

        Raises:
            TypeError: something other than ids, or more than one row of them.
            ValueError: an id outside the vocabulary.
        """
        ids = plain(ids)
        if not isinstance(ids, (list, tuple)):
            return self._token_of(ids)
        tokens = [self._token_of(index) for index in ids]
        skipped = set(self.all_special_tokens) if skip_special_tokens else ()
        return [token for token in tokens if token not in skipped]

    def _token_of(self, index: Any) -> str:
        index = plain(index)
        if not isinstance(index, int):
            raise TypeError(
                f"ids must be integers or one row of them (batch_decode takes several), got {brief(index)}."
            )
        token = self._backend.id_to_token(index) if 0 <= index < 2**32 else None
        if token is None:
            raise ValueError(
                f"The id {index} is outside the vocabulary of {len(self)} tokens: drop it before decoding."
            )
        return token

    # Special tokens in a row

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens encoding adds to a text, or to a pair."""
        return 3 if pair else 2

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """`[CLS] A [SEP]`, or `[CLS] A [SEP] B [SEP]`, as ids."""
        second = [] if token_ids_1 is None else [*token_ids_1, self.sep_token_id]
        return [self.cls_token_id, *token_ids_0, self.sep_token_id, *second]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence, token_ids_1: Sequence | None = None
    ) -> list[int]:
        """0 for each token of `[CLS] A [SEP]`, 1 for each of `B [SEP]`."""
        return [0] * (len(token_ids_0) + 2) + ([] if token_ids_1 is None else [1] * (len(token_ids_1) + 1))

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence,
        token_ids_1: Sequence | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for each special token and 0 for the others.

        Args:
            token_ids_0, token_ids_1: ids without special tokens; the mask is for the row built from them.
            already_has_special_tokens: `token_ids_0` is a whole row; special is what `all_special_ids` lists.

        Raises:
            ValueError: a whole row and `token_ids_1`.
        """
        if not already_has_special_tokens:
            second = [] if token_ids_1 is None else [0] * len(token_ids_1) + [1]
            return [1, *[0] * len(token_ids_0), 1, *second]
        if token_ids_1 is not None:
            raise ValueError(
                "token_ids_1 must be None where already_has_special_tokens=True: pass the whole row first."
            )
        special = set(self.all_special_ids)
        return [int(index in special) for index in plain(token_ids_0)]


def plain(ids: Any) -> Any:
    """Arrays and tensors as (lists of) ints; anything else as it is."""
    ids = ids if hasattr(ids, "tolist") or not hasattr(ids, "numpy") else ids.numpy()
    return ids.tolist() if hasattr(ids, "tolist") else ids
