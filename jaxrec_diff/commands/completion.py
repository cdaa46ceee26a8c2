"""`bin/completion`: what bash and zsh need to complete the commands, from the parsers' lists."""

import importlib
import shlex
from pathlib import Path

from jaxrec_diff.commands import COMMANDS
from jaxrec_diff.commands.terminal import (
    FILE,
    MODEL,
    SAMPLER,
    Accepts,
    explain,
    refuse,
    split_flags,
)

USAGE = """\
usage: bin/completion

  source <(bin/completion)                 for this shell, bash or zsh
  bin/completion >> ~/.bashrc              for every bash
  bin/completion >> ~/.zshrc               for every zsh

Completes bin/NAME and its full path: flags, models, fields of the model that
--model or --workdir names, their words, and files. It is made from the lists
that the parsers have; run it again after an update.
"""
ACCEPTS = Accepts({})

# A word that ends in "=" or "." goes on, any other is followed by a space; ":" stands for files.
_SCRIPT = r"""# Completion of bin/*; made by bin/completion.
if [ -n "${ZSH_VERSION:-}" ]; then
  whence compdef >/dev/null || { autoload -Uz compinit && compinit -u; }
  autoload -Uz bashcompinit && bashcompinit
fi

_jaxrec_flags() { # command
  case $1 in
@flags@
  esac
}

_jaxrec_fields() { # command model
  local begin
  case $1 in
@begin@
  *) return ;;
  esac
  {
    printf '%s\n' @common@
    case $2 in
@fields@
    esac
  } | grep -- "^$begin"
}

_jaxrec_values() { # "command --flag" "model --flag"
  case $1 in
@values@
  esac
  case $2 in
@words@
  esac
}

_jaxrec() {
  if [ -n "${ZSH_VERSION:-}" ]; then setopt localoptions no_nomatch; fi
  local line=${COMP_LINE:0:$COMP_POINT} option place start= name= model= folder
  local command=${line%%[[:space:]]*} word=${line##*[[:space:]]}
  local value=$word
  command=${command##*/}
  case $line in
  *" --model="*) model=${line#*" --model="} model=${model%%[[:space:]]*} ;;
  *" --workdir="*)
    folder=${line#*" --workdir="} folder=${folder%%[[:space:]]*}
    model=$(sed -n 's/^ "preset": "\([^"]*\)".*/\1/p' "$folder/config.json" 2>/dev/null)
    ;;
  esac
  case $word in --*=*)
    name=${word%%=*} value=${word#*=}
    # bash takes what follows "=" for a word of its own, unless it was told otherwise
    case ${COMP_WORDBREAKS-} in *=*) ;; *) start=$name= ;; esac
    ;;
  esac
  COMPREPLY=()
  while IFS= read -r option; do
    case $option in
    :)
      for place in "$value"*; do
        if [ -d "$place" ]; then
          COMPREPLY+=("$start$(printf %q "$place")/")
        elif [ -e "$place" ]; then
          COMPREPLY+=("$start$(printf %q "$place") ")
        fi
      done
      ;;
    "$value"*[=.]) COMPREPLY+=("$start$option") ;;
    "$value"*) COMPREPLY+=("$start$option ") ;;
    esac
  done < <(
    if [ -n "$name" ]; then
      _jaxrec_values "$command $name" "$model $name"
      exit
    fi
    _jaxrec_flags "$command"
    case $word in
    --*.*) _jaxrec_fields "$command" "$model" ;;
    --*) _jaxrec_fields "$command" "$model" | sed 's/\..*/./' | sort -u ;;
    esac
  )
}

for _jaxrec_name in @names@; do
  complete -o nospace -F _jaxrec "bin/$_jaxrec_name" "./bin/$_jaxrec_name" @folder@/"$_jaxrec_name"
done
"""


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE)
    if flags.dotted:
        return refuse(f"unknown flag {flags.dotted[0]}; see bin/completion --help")
    folder = Path(__file__).parents[2] / "bin"
    if not folder.is_dir():
        return refuse("an installed package has no bin/ to complete; take that of a checkout")
    print(script(folder), end="")
    return 0


def commands() -> dict[str, Accepts]:
    """All commands with what they take."""
    return {
        name: importlib.import_module(f"jaxrec_diff.commands.{name}").ACCEPTS for name in COMMANDS
    }


def script(folder: Path) -> str:
    """The completion of the commands in a folder."""
    from jaxrec_diff import config
    from jaxrec_diff.config.choice import FAST

    known = commands()
    presets = {n: config.preset(n, "synthetic").experiment for n in config.preset_names()}
    fields = {name: config.flag_words(preset) for name, preset in presets.items()}
    common = set.intersection(*(set(words) for words in fields.values()))
    any_words = {flag: words for one in fields.values() for flag, words in one.items()}

    def of(kind: str | tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(kind, tuple):
            return kind
        kinds = any_words.get("model.sampler.kind", ())
        known_kinds = {FILE: (":",), MODEL: tuple(presets), SAMPLER: (FAST, *kinds)}
        return known_kinds.get(kind) or any_words.get(kind, ())

    parts = {
        "flags": _cases(
            {
                name: [
                    *(f"--{flag}=" for flag in accepts.values),
                    *(f"--{switch}" for switch in (*accepts.switches, "help")),
                    *_plain(accepts),
                ]
                for name, accepts in known.items()
            }
        ),
        "begin": "\n".join(
            f"  {name}) begin=--{accepts.fields} ;;"
            for name, accepts in known.items()
            if accepts.fields is not None
        ),
        "common": " ".join(f"--{flag}=" for flag in sorted(common)),
        "fields": _cases(
            {
                name: [f"--{flag}=" for flag in words if flag not in common]
                for name, words in fields.items()
            }
        ),
        "values": _cases(
            {
                f'"{name} --{flag}"': of(kind)
                for name, accepts in known.items()
                for flag, kind in accepts.values.items()
            }
        ),
        "words": _cases(
            {f'*" --{flag}"': any_words[flag] for flag in sorted(common)}
            | {
                f'"{name} --{flag}"': words
                for name, one in fields.items()
                for flag, words in one.items()
                if flag not in common
            }
        ),
        "names": " ".join(known),
        "folder": shlex.quote(str(folder)),
    }
    made = _SCRIPT
    for part, text in parts.items():
        made = made.replace(f"@{part}@", text)
    return made


def _plain(accepts: Accepts) -> tuple[str, ...]:
    """What stands without a flag."""
    if isinstance(accepts.words, tuple):
        return accepts.words
    return (":",) if accepts.words else ()


def _cases(words: dict) -> str:
    """Branches of a shell's `case`, those that print the same words as one."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for pattern, printed in words.items():
        alike.setdefault(tuple(printed), []).append(pattern)
    return "\n".join(
        f"  {' | '.join(patterns)}) printf '%s\\n' {' '.join(map(shlex.quote, printed))} ;;"
        for printed, patterns in alike.items()
        if printed
    )
