package sops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/cmd/sops/formats"
	"github.com/getsops/sops/v3/config"
	sopsdotenv "github.com/getsops/sops/v3/stores/dotenv"
	sopsini "github.com/getsops/sops/v3/stores/ini"
	sopsjson "github.com/getsops/sops/v3/stores/json"
	sopsyaml "github.com/getsops/sops/v3/stores/yaml"
	"go.yaml.in/yaml/v3"
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

// storeOf reads and prints documents of a form.
func storeOf(format formats.Format) sops.Store {
	stores := config.NewStoresConfig()
	switch format {
	case formats.Yaml:
		return sopsyaml.NewStore(&stores.YAML)
	case formats.Json:
		return sopsjson.NewStore(&stores.JSON)
	case formats.Dotenv:
		return sopsdotenv.NewStore(&stores.Dotenv)
	case formats.Ini:
		return sopsini.NewStore(&stores.INI)
	default:
		return sopsjson.NewBinaryStore(&stores.JSONBinary)
	}
}

// checkAliases refuses aliases, which SOPS writes out when it encrypts: one document
// could expand to any size.
func checkAliases(content []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var node yaml.Node
		switch err := decoder.Decode(&node); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return errors.New("it is no valid YAML")
		}
		if line := aliasIn(&node); line > 0 {
			return fmt.Errorf("line %d has an alias, which an encrypted document cannot have", line)
		}
	}
}

// aliasIn is the line of the first alias at and below a node, 0 where there is none.
func aliasIn(node *yaml.Node) int {
	if node.Kind == yaml.AliasNode {
		return node.Line
	}
	for _, child := range node.Content {
		if line := aliasIn(child); line > 0 {
			return line
		}
	}
	return 0
}
