package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
)

// digestState is a digest of what the apps' objects are in the cluster, without
// what every server chooses anew. Two clients that did the same work leave the
// same digest.
func digestState(ctx context.Context, c *client) (string, error) {
	var lines []string
	for _, kind := range appKinds() {
		data, err := c.send(ctx, "GET", kind.path("")+"?labelSelector="+url.QueryEscape(partOf), "", nil)
		if err != nil {
			return "", err
		}
		var list struct{ Items []map[string]any }
		if err := json.Unmarshal(data, &list); err != nil {
			return "", fmt.Errorf("list %s: %w", kind.plural, err)
		}
		for _, object := range list.Items {
			line, err := json.Marshal([]any{kind.kind, essence(object)})
			if err != nil {
				return "", err
			}
			lines = append(lines, string(line))
		}
	}
	slices.Sort(lines)
	hash := sha256.New()
	for _, line := range lines {
		hash.Write([]byte(line + "\n"))
	}
	return fmt.Sprintf("%d objects %s", len(lines), hex.EncodeToString(hash.Sum(nil)[:8])), nil
}

// essence is an object without status and without what the server chose.
func essence(object map[string]any) map[string]any {
	delete(object, "status")
	meta, _ := object["metadata"].(map[string]any)
	kept := map[string]any{}
	for _, key := range []string{"name", "namespace", "labels"} {
		kept[key] = meta[key]
	}
	object["metadata"] = kept
	if spec, ok := object["spec"].(map[string]any); ok {
		delete(spec, "clusterIP")
		delete(spec, "clusterIPs")
	}
	return object
}
