package helmrepo

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/plumb-gitops/plumb/internal/egress"
	chart "helm.sh/helm/v4/pkg/chart/v2"
)

// entry is one version of a chart in an index, in the form in which it is served: that of
// Helm, as JSON.
type entry struct {
	*chart.Metadata
	URLs          []string  `json:"urls"`
	Created       time.Time `json:"created"`
	Removed       bool      `json:"removed,omitempty"`
	Digest        string    `json:"digest,omitempty"`
	Checksum      string    `json:"checksum,omitempty"`
	Engine        string    `json:"engine,omitempty"`
	TillerVersion string    `json:"tillerVersion,omitempty"`
	URL           string    `json:"url,omitempty"`
}

// written is an entry as it stands in YAML. Helm's own types have names for JSON only.
type written struct {
	Name         string              `yaml:"name"`
	Home         string              `yaml:"home"`
	Sources      []string            `yaml:"sources"`
	Version      string              `yaml:"version"`
	Description  string              `yaml:"description"`
	Keywords     []string            `yaml:"keywords"`
	Maintainers  []*chart.Maintainer `yaml:"maintainers"`
	Icon         string              `yaml:"icon"`
	APIVersion   string              `yaml:"apiVersion"`
	Condition    string              `yaml:"condition"`
	Tags         string              `yaml:"tags"`
	AppVersion   string              `yaml:"appVersion"`
	Deprecated   bool                `yaml:"deprecated"`
	Annotations  map[string]string   `yaml:"annotations"`
	KubeVersion  string              `yaml:"kubeVersion"`
	Dependencies []*chart.Dependency `yaml:"dependencies"`
	Type         string              `yaml:"type"`

	URLs          []string  `yaml:"urls"`
	Created       time.Time `yaml:"created"`
	Removed       bool      `yaml:"removed"`
	Digest        string    `yaml:"digest"`
	Checksum      string    `yaml:"checksum"`
	Engine        string    `yaml:"engine"`
	TillerVersion string    `yaml:"tillerVersion"`
	URL           string    `yaml:"url"`
}

// entry is w as it is served; nil for nil.
func (w *written) entry() *entry {
	if w == nil {
		return nil
	}
	return &entry{
		Metadata: &chart.Metadata{
			Name: w.Name, Home: w.Home, Sources: w.Sources, Version: w.Version, Description: w.Description,
			Keywords: w.Keywords, Maintainers: w.Maintainers, Icon: w.Icon, APIVersion: w.APIVersion,
			Condition: w.Condition, Tags: w.Tags, AppVersion: w.AppVersion, Deprecated: w.Deprecated,
			Annotations: w.Annotations, KubeVersion: w.KubeVersion, Dependencies: w.Dependencies, Type: w.Type,
		},
		URLs: w.URLs, Created: w.Created, Removed: w.Removed, Digest: w.Digest,
		Checksum: w.Checksum, Engine: w.Engine, TillerVersion: w.TillerVersion, URL: w.URL,
	}
}

// check refuses what cannot be a version of a chart, and puts the rest into order as Helm
// does.
func (e *entry) check(name string) error {
	if e == nil {
		return errors.New("it is empty")
	}
	if e.Metadata == nil {
		e.Metadata = &chart.Metadata{}
	}
	if e.APIVersion == "" {
		e.APIVersion = chart.APIVersionV1
	}
	// Some repositories drop the aliases of dependencies, which makes two of them alike.
	if err := e.Validate(); err != nil && !strings.HasPrefix(err.Error(), "validation: more than one dependency") {
		return err
	}
	if e.Name != name {
		return fmt.Errorf("its name is %q", clipped(e.Name))
	}
	return checkNames(e.Name, e.Version)
}

// mostNames is the longest name and version of a chart together, so that a file can have
// both in its name.
const mostNames = 230

// checkNames refuses a name and a version that could not stand in the names of files.
func checkNames(name, version string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, `/\`) || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%q is no name for a chart", clipped(name))
	}
	if len(name)+len(version) > mostNames {
		return fmt.Errorf("its name and version have more than %d bytes", mostNames)
	}
	return nil
}

// plain is an error of a library with a text that can be shown: one line of some length.
func plain(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(egress.Printable(strings.ReplaceAll(err.Error(), "\x00", "")))
}

// clipped is the beginning of a text that may be long.
func clipped(text string) string {
	const most = 100
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
