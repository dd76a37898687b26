package sops

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/getsops/sops/v3"
)

// readJSON reads a document of JSON, which is an object.
func readJSON(content []byte) (sops.TreeBranches, error) {
	// This check has a limit of depth, and what comes after it has none.
	if !json.Valid(content) {
		return nil, errUnreadable
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	value, err := readToken(decoder)
	if err != nil {
		return nil, errUnreadable
	}
	branch, ok := value.(sops.TreeBranch)
	if !ok {
		return nil, errUnreadable
	}
	return sops.TreeBranches{branch}, nil
}

// readToken reads a value. A number is an int, or a float where it is none or has more
// than 64 bits.
func readToken(decoder *json.Decoder) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Number:
		if n, err := token.Int64(); err == nil {
			return int(n), nil
		}
		return token.Float64()
	case json.Delim:
		if token == '[' {
			return readArray(decoder)
		}
		return readObject(decoder)
	default:
		return token, nil
	}
}

func readArray(decoder *json.Decoder) (any, error) {
	var list []any
	for decoder.More() {
		value, err := readToken(decoder)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := decoder.Token()
	return list, err
}

func readObject(decoder *json.Decoder) (any, error) {
	var branch sops.TreeBranch
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		value, err := readToken(decoder)
		if err != nil {
			return nil, err
		}
		branch = append(branch, sops.TreeItem{Key: key, Value: value})
	}
	_, err := decoder.Token()
	return branch, err
}

// printJSON prints a document as SOPS does, with tabs. JSON has no comments.
func printJSON(documents sops.TreeBranches) ([]byte, error) {
	if len(documents) == 0 {
		return nil, errUnprintable
	}
	var compact, out bytes.Buffer
	if err := writeValue(&compact, documents[0]); err != nil {
		return nil, err
	}
	if err := json.Indent(&out, compact.Bytes(), "", "\t"); err != nil {
		return nil, err
	}
	return append(out.Bytes(), '\n'), nil
}

func writeValue(out *bytes.Buffer, value any) error {
	switch value := value.(type) {
	case sops.TreeBranch:
		return writeObject(out, value)
	case []any:
		out.WriteByte('[')
		first := true
		for _, item := range value {
			if _, ok := item.(sops.Comment); ok {
				continue
			}
			if !first {
				out.WriteByte(',')
			}
			first = false
			if err := writeValue(out, item); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return nil
	default:
		text, err := json.Marshal(value)
		out.Write(text)
		return err
	}
}

func writeObject(out *bytes.Buffer, branch sops.TreeBranch) error {
	out.WriteByte('{')
	first := true
	for _, item := range branch {
		if _, ok := item.Key.(sops.Comment); ok {
			continue
		}
		name, ok := item.Key.(string)
		if !ok {
			return errors.New("JSON has keys of text only")
		}
		if !first {
			out.WriteByte(',')
		}
		first = false
		if err := writeValue(out, name); err != nil {
			return err
		}
		out.WriteByte(':')
		if err := writeValue(out, item.Value); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

// printBinary prints the file that an envelope of JSON holds.
func printBinary(documents sops.TreeBranches) ([]byte, error) {
	if len(documents) == 1 {
		for _, item := range documents[0] {
			if text, ok := item.Value.(string); ok && item.Key == "data" {
				return []byte(text), nil
			}
		}
	}
	return nil, errUnprintable
}
