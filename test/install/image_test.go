package install

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/plumb-gitops/plumb/internal/install"
)

// The image and the Deployment promise each other something: a program at a path, a
// user who is a number, a root that nobody writes to.
func TestImageFitsTheDeployment(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	text := read("Dockerfile")
	stages := regexp.MustCompile(`(?m)^FROM `).Split(text, -1)
	last := stages[len(stages)-1]
	tests := map[string]struct {
		text, pattern string
		want          bool
	}{
		"the program is static":                   {stages[1], `(?m)^RUN CGO_ENABLED=0 `, true},
		"it is built by the Go that go.mod names": {text, `(?m)^ARG GO=golang:` + regexp.QuoteMeta(goVersion(read("go.mod"))) + `$`, true},
		"there is nothing but the program":        {last, `\Ascratch\n`, true},
		"nothing runs to make the last stage":     {last, `(?m)^RUN`, false},
		"the user is a number and not root":       {last, `(?m)^USER [1-9]\d*:[1-9]\d*$`, true},
		"the program is the entry point":          {last, `(?m)^ENTRYPOINT \["/plumb"\]$`, true},
		"certificates of authorities are there":   {last, `(?m)^COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/$`, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if regexp.MustCompile(tt.pattern).MatchString(tt.text) != tt.want {
				t.Errorf("not so in\n%s", tt.text)
			}
		})
	}
	for _, needed := range []string{"cmd", "install", "internal", "go.mod", "go.sum"} {
		if slices.Contains(strings.Fields(read(".dockerignore")), needed) {
			t.Errorf("%s is needed and left out by .dockerignore", needed)
		}
	}
	objects, err := install.Objects(install.Options{Namespace: "flux-system", Profile: install.Single, Image: "any"})
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(objects[len(objects)-1].Object, &d); err != nil {
		t.Fatal(err)
	}
	if command := d.Spec.Template.Spec.Containers[0].Command; len(command) != 2 || command[0] != "/plumb" {
		t.Errorf("the Deployment runs %q", command)
	}
}

// goVersion is 1.26 for a go.mod that asks for 1.26.0.
func goVersion(goMod string) string {
	return regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(goMod)[1]
}
