package sops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/cmd/sops/formats"
	"github.com/getsops/sops/v3/config"
	sopsdotenv "github.com/getsops/sops/v3/stores/dotenv"
	sopsini "github.com/getsops/sops/v3/stores/ini"
	sopsjson "github.com/getsops/sops/v3/stores/json"
	sopsyaml "github.com/getsops/sops/v3/stores/yaml"
	"github.com/google/go-cmp/cmp"
)

// documents are plain texts of each form, some of them odd and some wrong.
var documents = map[formats.Format][]string{
	formats.Yaml: {
		"",
		"a: b\n",
		"# head\n\n# of a\na: b # beside\n# foot\n\nc: # beside a map\n  # in it\n  d: 1\n  # its foot\nlist: # beside a list\n  # first\n  - x # beside x\n  - y\n  # last\n# end\n",
		"a: 1\nb: 1.50\nc: true\nd: ~\ne: 2020-01-02T03:04:05Z\nf: 0x10\ng: 1_000\nh: .inf\ni: !!binary aGk=\nj: \"quoted\"\nk: |\n  block\n  text\nl: >\n  folded\n  text\n",
		"a: b\n---\nc: d\n---\n# only a comment\n",
		"a:\n  - b:\n      - c: 1\n        # in it\n        d: 2\n    # after\n  - [1, 2, {x: y}] # flow\n  - - nested\n    - list # beside\nempty: {}\nnone: []\n",
		"1: a\ntrue: b\n? complex\n: c\n",
		"--- # of the document\na: b\n",
		"# alone\n",
		"a:\n  # only a comment\n",
		"a: b\na: c\n",
		"- a\n- b\n",
		"text\n",
		"a: [\n",
		"null\n",
		"{a: b, c: [d, e]}\n",
		"a: \"\\u00fc \\x07 <&>\"\nb: 'it''s'\nlong: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb ccccccccccccccccccccc\n",
	},
	formats.Json: {
		`{}`, `{"a":1,"b":[1,2.5,"x",null,true,{"c":{}}],"d":[],"e":{"f":[[1],[]]}}`,
		`{"big":9007199254740993,"bigger":18446744073709551616,"small":1e-9,"e":1E3,"text":"<&>\u2028\n"}`,
		`{"a":1,"a":2}`, `[1]`, `"a"`, `1`, `{"a":`, `{"a":1}}`, ``, ` {"a" : "b"} `,
	},
	formats.Dotenv: {
		"", "A=b\n", "# comment\nA=b=c\n\nB=\nC=line\\nline\n#\n", "no equals\n", "A=b", " spaced = x \n", "A=b\r\n",
	},
	formats.Ini: {
		"", "a = b\n", "; top\n[one]\n; of a\na = b\n# of c\nc = d\n\n[two]\n[one]\na = again\n", "[open\n", "[s]\nk = \"quoted\"\nl = `raw`\nm = multi \\\n line\n", "[s]\nnovalue\n", "; ;; signs\n[x]\n",
	},
	formats.Binary: {`{"data":"text\u0000"}`, `{"data":1}`, `{"other":"x"}`, `{}`},
}

// storeOf is SOPS's own reader of a form.
func storeOf(format formats.Format) sops.Store {
	stores := config.NewStoresConfig()
	switch format {
	case formats.Yaml:
		return sopsyaml.NewStore(&stores.YAML)
	case formats.Json:
		return sopsjson.NewStore(&stores.JSON)
	case formats.Dotenv:
		return sopsdotenv.NewStore(&stores.Dotenv)
	default:
		return sopsini.NewStore(&stores.INI)
	}
}

// TestLikeSOPS reads and prints documents as SOPS's own stores do, and each form in all
// others.
func TestLikeSOPS(t *testing.T) {
	t.Parallel()
	for format, texts := range documents {
		for _, text := range texts {
			likeSOPS(t, format, []byte(text))
		}
	}
}

// FuzzLikeSOPS looks for a document that is read or printed otherwise than by SOPS.
func FuzzLikeSOPS(f *testing.F) {
	for format, texts := range documents {
		for _, text := range texts {
			f.Add(uint8(format), []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, format uint8, content []byte) {
		likeSOPS(t, formats.Format(format%5), content)
	})
}

func likeSOPS(t *testing.T, format formats.Format, content []byte) {
	t.Helper()
	read, err := formFor(format).read(content)
	in := format
	if in == formats.Binary {
		in = formats.Json
	}
	// SOPS takes what follows a document of JSON, and an alias in YAML.
	want, wantErr := storeOf(in).LoadPlainFile(content)
	if err != nil {
		if wantErr == nil && !stricter(in, content) {
			t.Errorf("%s %q is refused: %v", formatName(in), content, err)
		}
		return
	}
	if wantErr != nil {
		t.Errorf("%s %q is taken, and SOPS says %v", formatName(in), content, wantErr)
		return
	}
	if diff := cmp.Diff(want, read, cmp.Comparer(func(a, b float64) bool { return a == b || a != a && b != b })); diff != "" {
		t.Errorf("%s %q is read otherwise (-SOPS +here):\n%s", formatName(in), content, diff)
	}
	for _, out := range []formats.Format{formats.Yaml, formats.Json, formats.Dotenv, formats.Ini} {
		printed, err := attempt(func() ([]byte, error) { return formFor(out).print(read) })
		want, wantErr := attempt(func() ([]byte, error) { return storeOf(out).EmitPlainFile(read) })
		switch {
		case bytes.Contains(want, []byte("%!s(")): // SOPS prints a key that is no text like this.
		case errors.Is(wantErr, errPanic) && err == nil:
		case (err == nil) != (wantErr == nil):
			t.Errorf("%s %q as %s: error is %v, that of SOPS %v", formatName(in), content, formatName(out), err, wantErr)
		case err == nil && string(printed) != string(want):
			t.Errorf("%s %q as %s is printed otherwise:\n%s\nSOPS:\n%s", formatName(in), content, formatName(out), printed, want)
		}
	}
}

var errPanic = errors.New("panic")

// attempt makes an error of a panic: libraries below can have them, and a keyring takes
// them as errors.
func attempt(print func() ([]byte, error)) (content []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	return print()
}

// stricter tells whether a document is refused here on purpose.
func stricter(format formats.Format, content []byte) bool {
	switch format {
	case formats.Json:
		return !json.Valid(content)
	case formats.Yaml:
		return bytes.ContainsRune(content, '*')
	default:
		return false
	}
}
