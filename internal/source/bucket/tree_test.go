package bucket

import (
	"fmt"
	"strings"
	"testing"
)

// TestDirectoriesAreBounded: a key of one byte of content makes a hundred directories.
func TestDirectoriesAreBounded(t *testing.T) {
	t.Parallel()
	var entries []entry
	for i := range mostDirectories/deepest + 1 {
		entries = append(entries, entry{key: fmt.Sprintf("%d%sf", i, strings.Repeat("/a", deepest-1)+"/")})
	}
	if _, err := newTable(entries); err == nil || !strings.Contains(err.Error(), "more than 200000 directories") {
		t.Errorf("%d keys: %v", len(entries), err)
	}
	if _, err := newTable(entries[:len(entries)-2]); err != nil {
		t.Error(err)
	}
}
