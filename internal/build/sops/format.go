package sops

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/cmd/sops/formats"
	"github.com/getsops/sops/v3/stores"
)

// marks are what an encrypted document of a form has in its text. A binary file is
// encrypted into a document of JSON.
type marks map[formats.Format]*regexp.Regexp

func newMarks() marks {
	asJSON := regexp.MustCompile(`"mac"\s*:\s*"ENC\[`)
	return marks{
		formats.Binary: asJSON,
		formats.Json:   asJSON,
		formats.Yaml:   regexp.MustCompile(`(?m)^[ \t]*["']?mac["']?:[ \t]*["']?ENC\[`),
		formats.Dotenv: regexp.MustCompile(`(?m)^sops_mac=["']?ENC\[`),
		formats.Ini:    regexp.MustCompile(`(?m)^\[sops\]`),
	}
}

// formatOf is the form that a name promises; binary where it promises none.
func formatOf(name string) formats.Format {
	if strings.HasSuffix(name, ".dockerconfigjson") {
		return formats.Json
	}
	return formats.FormatForPath(name)
}

// formatName is how people call a form.
func formatName(format formats.Format) string {
	switch format {
	case formats.Yaml:
		return "YAML"
	case formats.Json:
		return "JSON"
	case formats.Dotenv:
		return "dotenv"
	case formats.Ini:
		return "INI"
	default:
		return "binary"
	}
}

// found is the form of an encrypted document; false for a text that is none.
func (m marks) found(content []byte) (formats.Format, bool) {
	if m[formats.Json].Match(content) && json.Valid(content) {
		if isEnvelope(content) {
			return formats.Binary, true
		}
		return formats.Json, true
	}
	for _, format := range []formats.Format{formats.Yaml, formats.Dotenv, formats.Ini} {
		if m[format].Match(content) {
			return format, true
		}
	}
	return formats.Binary, false
}

// isEnvelope tells whether a document of JSON holds a binary file.
func isEnvelope(content []byte) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(content, &fields) != nil || len(fields) != 2 {
		return false
	}
	var data string
	return json.Unmarshal(fields["data"], &data) == nil && fields["sops"] != nil
}

// form is how documents are read and printed. They are read and printed as by SOPS's own
// stores, byte for byte. Those are not linked: they link the configuration of SOPS's
// command, and with it clients of three object stores, which are 15 MB of program.
type form struct {
	read     func(content []byte) (sops.TreeBranches, error)
	metadata stores.MetadataOpts
	print    func(documents sops.TreeBranches) ([]byte, error)
}

var (
	errUnreadable  = errors.New("it is no document that SOPS can read")
	errUnprintable = errors.New("it cannot be printed")
)

func formFor(format formats.Format) form {
	switch format {
	case formats.Yaml:
		return form{read: readYAML, print: printYAML}
	case formats.Json:
		return form{read: readJSON, print: printJSON}
	case formats.Dotenv:
		return form{read: readDotenv, print: printDotenv, metadata: stores.MetadataOpts{Flatten: stores.MetadataFlattenFull}}
	case formats.Ini:
		return form{read: readINI, print: printINI, metadata: stores.MetadataOpts{Flatten: stores.MetadataFlattenBelowTop, EscapeNewlines: true}}
	default:
		return form{read: readJSON, print: printBinary}
	}
}

// load reads an encrypted document. Its error is sops.MetadataNotFound for one that is
// not encrypted; no error quotes the document.
func (f form) load(content []byte) (sops.Tree, error) {
	documents, err := f.read(content)
	if err != nil {
		return sops.Tree{}, err
	}
	branches, metadata, err := stores.ExtractMetadata(documents, f.metadata)
	switch {
	case errors.Is(err, sops.MetadataNotFound):
		return sops.Tree{}, err
	case err != nil:
		return sops.Tree{}, errUnreadable
	}
	return sops.Tree{Branches: branches, Metadata: metadata}, nil
}
