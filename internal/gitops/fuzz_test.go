package gitops_test

import (
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// FuzzParseID: a status may have been written by anybody. What is read of an id is an object
// whose own id leads to it again.
func FuzzParseID(f *testing.F) {
	for _, id := range []string{
		"apps_web_apps_Deployment", "_admin__all_rbac.authorization.k8s.io_ClusterRole", "__a__b__g_K", "a____b_g_K", "apps_web__Service",
		"_x__Namespace", "___", "____", "", "a", "a_b", "a_b_c", "a_b_c_d_e", "a__b_g_K_", "\x00_\xff_:_K",
	} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		ref, err := gitops.ParseID(id)
		if err != nil {
			return
		}
		if ref.Name == "" || ref.Kind == "" || strings.Contains(ref.Name+ref.Kind+ref.Group+ref.Namespace, "_") {
			t.Fatalf("%q is %+v", id, ref)
		}
		again, err := gitops.ParseID(ref.ID())
		if err != nil || again != ref {
			t.Errorf("%q is %+v, whose id %q is %+v: %v", id, ref, ref.ID(), again, err)
		}
	})
}
