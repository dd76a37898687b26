package ownership

import (
	"slices"
	"strconv"
	"strings"
)

// Differences are the fields that were sent with an apply and have another value
// in its answer: what admission, or the API server itself, made of our own fields.
// sent is a manifest as JSON, answer is the object that came back, as decoded from
// JSON. The result is sorted and holds paths only, never values; the names that
// tell list items apart are part of a path, as in
// .spec.template.spec.containers[name=app].image.
//
// Fields that only the answer has are no difference. Values are compared by what
// they mean: numbers and quantities by amount (1000m is 1), stringData of a Secret
// with its data, null and empty as absent. Whether a list is compared item by item
// or as a whole is read from the answer's managedFields; where they do not say,
// items are matched by their names if they have any, else by index. A sent
// document that is no JSON object has no differences.
func Differences(sent []byte, answer map[string]any) []string {
	var manifest map[string]any
	if decode(sent, &manifest) != nil {
		return nil
	}
	d := differ{secret: manifest["kind"] == "Secret" && manifest["apiVersion"] == "v1"}
	d.plainText = d.secret || (manifest["kind"] == "ConfigMap" && manifest["apiVersion"] == "v1")
	known := namedFields(answer)
	for key, value := range withoutIdentity(manifest) {
		switch {
		case key == "status":
		case key == "stringData" && d.secret:
			d.stringData(value, answer["data"])
		case key == "data" && d.secret:
			d.data(value, answer["data"], manifest["stringData"])
		default:
			d.field("."+fieldName(key), value, answer[key], known[fieldPrefix+key])
		}
	}
	slices.Sort(d.paths)
	return slices.Compact(d.paths)
}

// namedFields is the union of what the entries of an object's managedFields name:
// it tells associative lists from atomic ones.
func namedFields(object map[string]any) node {
	union := node{}
	meta, _ := object["metadata"].(map[string]any)
	entries, _ := meta["managedFields"].([]any)
	for _, e := range entries {
		entry, _ := e.(map[string]any)
		fields, _ := entry["fieldsV1"].(map[string]any)
		union.merge(nodeOf(fields))
	}
	return union
}

func nodeOf(fields map[string]any) node {
	n := make(node, len(fields))
	for element, child := range fields {
		below, _ := child.(map[string]any)
		n[element] = nodeOf(below)
	}
	return n
}

// differ collects the paths that differ.
type differ struct {
	paths []string
	// secret is set for a Secret of the core group.
	secret bool
	// plainText is set where the values are texts that no amount is read from.
	plainText bool
}

func (d *differ) add(path string) { d.paths = append(d.paths, path) }

func (d *differ) field(path string, sent, got any, known node) {
	switch s := sent.(type) {
	case nil:
	case map[string]any:
		g, ok := got.(map[string]any)
		switch {
		case ok:
			for key, value := range s {
				d.field(path+"."+fieldName(key), value, g[key], known[fieldPrefix+key])
			}
		case len(s) > 0 || got != nil:
			d.missing(path, s, got)
		}
	case []any:
		g, ok := got.([]any)
		switch {
		case ok:
			d.list(path, s, g, known)
		case len(s) > 0 || got != nil:
			d.add(path)
		}
	default:
		if !d.same(path, sent, got) {
			d.add(path)
		}
	}
}

// missing reports a map that the answer does not have, unless all that it holds
// counts as absent.
func (d *differ) missing(path string, sent map[string]any, got any) {
	if got != nil {
		d.add(path)
		return
	}
	before := len(d.paths)
	for key, value := range sent {
		d.field(path+"."+fieldName(key), value, nil, nil)
	}
	if len(d.paths) > before {
		d.paths = append(d.paths[:before], path)
	}
}

// list compares lists item by item where they are associative, else as a whole.
func (d *differ) list(path string, sent, got []any, known node) {
	if len(sent) == 0 {
		if len(got) > 0 && known != nil && known.leaf() {
			d.add(path)
		}
		return
	}
	names, sure := itemKeys(sent, got, known)
	switch {
	case names != nil:
		for _, item := range sent {
			d.keyed(path, item.(map[string]any), got, names, known)
		}
	case isSet(known):
		for _, item := range sent {
			if !slices.ContainsFunc(got, func(g any) bool { return sameScalar(item, g) }) {
				d.add(path)
			}
		}
	case len(sent) > len(got) || (sure && len(sent) != len(got)):
		d.add(path)
	default:
		for i, item := range sent {
			d.field(path+"["+strconv.Itoa(i)+"]", item, got[i], nil)
		}
	}
}

// keyed compares a list item with the one of the same keys. A key that was not
// sent may have been defaulted.
func (d *differ) keyed(path string, item map[string]any, got []any, names []string, known node) {
	var label []string
	for _, name := range names {
		if v, ok := item[name]; ok {
			label = append(label, name+"="+scalarText(v))
		}
	}
	path += "[" + strings.Join(label, ",") + "]"
	for _, g := range got {
		candidate, _ := g.(map[string]any)
		if !sameKeys(item, candidate, names) {
			continue
		}
		below := node(nil)
		for element, child := range known {
			if present, all := matches(element, candidate); present == all && all > 0 {
				below = child
			}
		}
		for key, value := range item {
			d.field(path+"."+fieldName(key), value, candidate[key], below[fieldPrefix+key])
		}
		return
	}
	d.add(path)
}

func sameKeys(item, candidate map[string]any, names []string) bool {
	for _, name := range names {
		if want, ok := item[name]; ok && !sameScalar(want, candidate[name]) {
			return false
		}
	}
	return candidate != nil
}

// fieldName is a key as a part of a path, quoted where it would be misread.
func fieldName(key string) string {
	if strings.ContainsAny(key, `./[]"= `) {
		return strconv.Quote(key)
	}
	return key
}

func scalarText(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case bool:
		return strconv.FormatBool(x)
	case interface{ String() string }:
		return x.String()
	}
	return ""
}
