package sops

import (
	"bytes"
	"strings"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/stores"
)

// readDotenv reads lines with a variable or a comment each.
func readDotenv(content []byte) (sops.TreeBranches, error) {
	var branch sops.TreeBranch
	for line := range strings.SplitSeq(string(content), "\n") {
		if comment, ok := strings.CutPrefix(line, "#"); ok {
			branch = append(branch, sops.TreeItem{Key: sops.Comment{Value: comment}})
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		switch {
		case ok:
			branch = append(branch, sops.TreeItem{Key: name, Value: strings.ReplaceAll(value, `\n`, "\n")})
		case line != "":
			return nil, errUnreadable
		}
	}
	return sops.TreeBranches{branch}, nil
}

// printDotenv prints a document as SOPS does.
func printDotenv(documents sops.TreeBranches) ([]byte, error) {
	if len(documents) == 0 {
		return nil, errUnprintable
	}
	var out bytes.Buffer
	for _, item := range documents[0] {
		if comment, ok := item.Key.(sops.Comment); ok {
			out.WriteString("#" + comment.Value + "\n")
			continue
		}
		if stores.IsComplexValue(item.Value) {
			return nil, errUnprintable
		}
		value, ok := item.Value.(string)
		if ok {
			value = strings.ReplaceAll(value, "\n", `\n`)
		} else {
			value = stores.ValToString(item.Value)
		}
		out.WriteString(stores.ValToString(item.Key) + "=" + value + "\n")
	}
	return out.Bytes(), nil
}
