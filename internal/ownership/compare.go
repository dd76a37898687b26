package ownership

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// itemKeys are the keys by which the items of two lists are told apart; nil where
// they have none. It is sure where managedFields say so, which includes that a
// list is atomic.
func itemKeys(sent, got []any, known node) (names []string, sure bool) {
	for element := range known {
		raw, ok := strings.CutPrefix(element, keyPrefix)
		if !ok {
			continue
		}
		var key map[string]any
		if decode([]byte(raw), &key) != nil {
			continue
		}
		if len(key) > len(names) {
			names = names[:0]
			for name := range key {
				names = append(names, name)
			}
		}
	}
	if len(names) > 0 {
		if allHaveOneOf(sent, names) {
			slices.Sort(names)
			return names, true
		}
		return nil, false
	}
	if known != nil && known.leaf() {
		return nil, true
	}
	for _, guess := range [][]string{{"name"}, {"containerPort", "protocol"}, {"port", "protocol"}, {"mountPath"}} {
		if distinct(sent, guess) && distinct(got, guess) {
			return guess, false
		}
	}
	return nil, false
}

// isSet tells whether managedFields name items of a list by their values.
func isSet(known node) bool {
	for element := range known {
		if strings.HasPrefix(element, valuePrefix) {
			return true
		}
	}
	return false
}

func allHaveOneOf(items []any, names []string) bool {
	for _, item := range items {
		m, _ := item.(map[string]any)
		found := false
		for _, name := range names {
			_, has := m[name]
			found = found || has
		}
		if !found {
			return false
		}
	}
	return true
}

// distinct tells whether all items are maps that have the first of the keys, and
// no two agree in all of them.
func distinct(items []any, names []string) bool {
	seen := make(map[string]bool, len(items))
	for _, item := range items {
		m, ok := item.(map[string]any)
		if !ok || m[names[0]] == nil {
			return false
		}
		var id strings.Builder
		for _, name := range names {
			id.WriteString(scalarText(m[name]) + "\x00")
		}
		if seen[id.String()] {
			return false
		}
		seen[id.String()] = true
	}
	return true
}

// same compares a scalar that was sent with what came back. What means absent may
// be absent; an empty text and a port 0 ask the API server to choose.
func (d *differ) same(path string, sent, got any) bool {
	if sameScalar(sent, got) {
		return true
	}
	if sent == "" && !d.plainText {
		return true
	}
	if zero(sent) && (got == nil || strings.HasSuffix(path, "odePort")) {
		return true
	}
	if d.plainText || strings.HasPrefix(path, ".metadata.") {
		return false
	}
	return sameQuantity(sent, got)
}

func zero(v any) bool {
	if n, ok := number(v); ok {
		return n.Sign() == 0
	}
	return v == false || v == ""
}

// sameQuantity compares amounts as in resources: at least one of the two must be
// a text, as that is how the API server writes them.
func sameQuantity(a, b any) bool {
	_, textA := a.(string)
	_, textB := b.(string)
	if !textA && !textB {
		return false
	}
	x, okA := quantity(a)
	y, okB := quantity(b)
	return okA && okB && x.Cmp(y) == 0
}

func quantity(v any) (resource.Quantity, bool) {
	text := ""
	switch x := v.(type) {
	case string:
		text = x
	default:
		if _, ok := number(v); !ok {
			return resource.Quantity{}, false
		}
		raw, err := json.Marshal(x)
		if err != nil {
			return resource.Quantity{}, false
		}
		text = string(raw)
	}
	if len(text) > maxDigits {
		return resource.Quantity{}, false
	}
	q, err := resource.ParseQuantity(text)
	return q, err == nil
}

// stringData compares what was sent as text with the encoded data that came back.
func (d *differ) stringData(sent, data any) {
	texts, _ := sent.(map[string]any)
	got, _ := data.(map[string]any)
	for key, value := range texts {
		text, ok := value.(string)
		if !ok {
			continue
		}
		encoded, present := got[key].(string)
		if raw, err := base64.StdEncoding.DecodeString(encoded); !present || err != nil || string(raw) != text {
			d.add(".stringData." + fieldName(key))
		}
	}
}

// data compares encoded data; a key that stringData has too is compared there.
func (d *differ) data(sent, data, texts any) {
	values, _ := sent.(map[string]any)
	got, _ := data.(map[string]any)
	over, _ := texts.(map[string]any)
	for key, value := range values {
		if _, ok := over[key]; ok || value == nil {
			continue
		}
		want, okW := decoded(value)
		have, okH := decoded(got[key])
		if !okW || !okH || !bytes.Equal(want, have) {
			d.add(".data." + fieldName(key))
		}
	}
}

func decoded(v any) ([]byte, bool) {
	text, ok := v.(string)
	if !ok {
		return nil, false
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	return raw, err == nil
}
