package substitute_test

import "encoding/json"

// yamlObject is an object that holds the text.
func yamlObject(text string) ([]byte, error) {
	return json.Marshal(map[string]any{"apiVersion": "v1", "data": text})
}
