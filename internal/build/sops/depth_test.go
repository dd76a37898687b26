package sops_test

import (
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/build"
)

// TestNestedWithoutEnd gives the reader of JSON a document that it must not follow down
// until the stack of the process overflows, which nothing can catch.
func TestNestedWithoutEnd(t *testing.T) {
	t.Parallel()
	deep := `{"mac":"ENC[","sops":{},"a":` + strings.Repeat("[", 4<<20)
	for _, name := range []string{"x.json", "x.bin"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := unlock(t, build.Decryption{}).File(t.Context(), build.EncryptedFile{Content: []byte(deep), Name: name})
			if err == nil {
				t.Error("it was taken")
			}
		})
	}
}
