package helmrepo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// mostDepth bounds how deep JSON may be nested.
const mostDepth = 100

// readJSON reads an index in JSON, of which it holds one version at a time.
func readJSON(in io.Reader, w *indexWriter) error { return noJSON(readJSONIndex(in, w)) }

func readJSONIndex(in io.Reader, w *indexWriter) error {
	value := &oneValue{in: in}
	decoder := json.NewDecoder(value)
	value.decoder = decoder
	if err := delimiter(decoder, '{'); err != nil {
		return err
	}
	fields := map[string]json.RawMessage{}
	beside := 0 // bytes of them
	for decoder.More() {
		key, err := keyOf(decoder)
		if err != nil {
			return err
		}
		if _, twice := fields[key]; twice {
			return fmt.Errorf("the index has %q twice", clipped(key))
		}
		if key == "entries" {
			fields[key] = nil
			err = readJSONCharts(decoder, w)
		} else {
			var value json.RawMessage
			err = decoder.Decode(&value)
			if beside += len(value); beside > mostEntry {
				err = fmt.Errorf("the index has more than %d bytes beside its entries", mostEntry)
			}
			fields[key] = value
		}
		if err != nil {
			return err
		}
		if len(fields) > mostDepth {
			return fmt.Errorf("the index has more than %d fields", mostDepth)
		}
	}
	if err := delimiter(decoder, '}'); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the index has something behind its end")
	}
	delete(fields, "entries")
	text, err := json.Marshal(fields)
	if err == nil && signs(text) > mostEntryNodes {
		err = tooMany(mostEntryNodes)
	}
	if err == nil {
		err = uniqueKeys(text)
	}
	var h head
	if err == nil {
		err = json.Unmarshal(text, &h)
	}
	if err != nil {
		return fmt.Errorf("the head of the index: %w", plain(err))
	}
	return w.finish(h)
}

func readJSONCharts(decoder *json.Decoder, w *indexWriter) error {
	token, err := decoder.Token()
	if err != nil || token == nil {
		return err
	}
	if token != json.Delim('{') {
		return errors.New("the entries of the index are no map")
	}
	for decoder.More() {
		name, err := keyOf(decoder)
		if err == nil {
			err = w.begin(name)
		}
		if err == nil {
			err = readJSONVersions(decoder, name, w)
		}
		if err != nil {
			return err
		}
	}
	return delimiter(decoder, '}')
}

func readJSONVersions(decoder *json.Decoder, name string, w *indexWriter) error {
	token, err := decoder.Token()
	if err != nil || token == nil {
		return err
	}
	if token != json.Delim('[') {
		return fmt.Errorf("the versions of chart %q are no list", clipped(name))
	}
	for decoder.More() {
		var text json.RawMessage
		if err := decoder.Decode(&text); err != nil {
			return err
		}
		version, err := parseEntry(text)
		if err != nil {
			w.skip("", err)
			continue
		}
		if err := w.add(version); err != nil {
			return err
		}
	}
	return delimiter(decoder, ']')
}

func parseEntry(text []byte) (version *entry, err error) {
	if len(text) > mostEntry {
		return nil, fmt.Errorf("it has more than %d bytes", mostEntry)
	}
	if signs(text) > mostEntryNodes {
		return nil, tooMany(mostEntryNodes)
	}
	if err := uniqueKeys(text); err != nil {
		return nil, err
	}
	return version, json.Unmarshal(text, &version)
}

// mostValue is the most bytes of a single value in JSON that are held. A version with more
// than mostEntry of them is left out; with more than this the index cannot be read on.
const mostValue = 4 * mostEntry

// oneValue is what a decoder reads from. It ends where a value is so long that the decoder
// should not hold it.
type oneValue struct {
	in      io.Reader
	decoder *json.Decoder
	read    int64
}

// Read gives bytes.
func (o *oneValue) Read(p []byte) (int, error) {
	if o.read-o.decoder.InputOffset() > mostValue {
		return 0, fmt.Errorf("the index has a value of more than %d bytes", mostValue)
	}
	n, err := o.in.Read(p[:min(len(p), 64<<10)])
	o.read += int64(n)
	return n, err
}

func delimiter(decoder *json.Decoder, want json.Delim) error {
	token, err := decoder.Token()
	if err == nil && token != want {
		err = fmt.Errorf("%q is missing", want.String())
	}
	return err
}

// noJSON says that an index is no JSON. What is not about its text passes unchanged.
func noJSON(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the index is no JSON that can be read: %w", err)
	}
	return err
}

func keyOf(decoder *json.Decoder) (string, error) {
	token, err := decoder.Token()
	if err != nil {
		return "", err
	}
	key, ok := token.(string)
	if !ok {
		return "", errors.New("the index has a key that is no text")
	}
	return key, nil
}

// uniqueKeys refuses a text in JSON with a key twice in one object, of which each reader
// may take another one.
func uniqueKeys(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	var open []map[string]bool // nil for a list
	key := false               // a key may come next
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'):
			open, key = append(open, map[string]bool{}), true
		case json.Delim('['):
			open, key = append(open, nil), false
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
			key = len(open) > 0 && open[len(open)-1] != nil
		default:
			if !key {
				key = len(open) > 0 && open[len(open)-1] != nil
				continue
			}
			name, _ := token.(string)
			if open[len(open)-1][name] {
				return fmt.Errorf("key %q is there twice", clipped(name))
			}
			open[len(open)-1][name], key = true, false
		}
		if len(open) > mostDepth {
			return fmt.Errorf("it is nested more than %d deep", mostDepth)
		}
	}
}
