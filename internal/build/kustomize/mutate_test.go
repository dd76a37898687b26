package kustomize_test

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/plumb-gitops/plumb/internal/build"
)

// mutate makes one random change to the files or to a spec, and says which.
func (h *history) mutate() string {
	h.files = maps.Clone(h.files)
	mutations := []func() string{
		h.addFile, h.changeFile, h.changeFile, h.changeFile, h.deleteFile, h.renameFile,
		h.referToMissing, h.addMissing, h.addKustomization, h.switchComponent, h.changeVariable, h.unrelated, h.repair, h.repair,
	}
	return mutations[h.random.Intn(len(mutations))]()
}

// pick is a random file, or "" where none fits.
func (h *history) pick(fits func(name string) bool) string {
	var names []string
	for _, name := range sortedKeys(h.files) {
		if fits(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[h.random.Intn(len(names))]
}

func isYAML(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

func anyFile(string) bool { return true }

func (h *history) folder() string { return path.Dir(h.pick(anyFile)) }

func (h *history) addFile() string {
	name := path.Join(h.folder(), fmt.Sprintf("added-%d.yaml", h.random.Intn(1000)))
	if h.random.Intn(3) == 0 {
		name = path.Join(path.Dir(name), "new", path.Base(name))
	}
	contents := []string{named(fmt.Sprintf("added-%d", h.random.Intn(50))), "# only a comment\n", "", "a: [broken\n", "kind: Nothing\n",
		strings.ReplaceAll(named("list"), "apiVersion: v1\nkind: ConfigMap", "apiVersion: v1\nkind: ConfigMap")}
	if h.random.Intn(3) > 0 {
		h.files[name] = contents[0]
	} else {
		h.files[name] = contents[h.random.Intn(len(contents))]
	}
	return "add " + name
}

func (h *history) changeFile() string {
	name := h.pick(isYAML)
	if name == "" {
		return h.addFile()
	}
	text := h.files[name]
	edits := [][2]string{
		{"replicas: 1", "replicas: 2"}, {"replicas: 2", "replicas: 1"}, {"key: value", fmt.Sprintf("key: v%d", h.random.Intn(9))},
		{"image: ", "image: example.com/"}, {"port: 80", "port: 81"}, {"metadata:\n  name:", "metadata:\n  annotations:\n    a: b\n  name:"},
		{"  labels:", "  labels: "}, {"namePrefix: s-", "namePrefix: q-"}, {"name: ", "name:  "}, {"cpu: ", "cpu:  "}, {"memory: 64Mi", "memory: 65Mi"},
	}
	for _, i := range h.random.Perm(len(edits)) {
		if strings.Contains(text, edits[i][0]) {
			h.files[name] = strings.Replace(text, edits[i][0], edits[i][1], 1)
			return fmt.Sprintf("change %s: %q to %q", name, edits[i][0], edits[i][1])
		}
	}
	h.files[name] = text + "# changed\n"
	return "comment in " + name
}

func (h *history) deleteFile() string {
	if len(h.files) < 4 {
		return h.addFile()
	}
	name := h.pick(anyFile)
	delete(h.files, name)
	return "delete " + name
}

func (h *history) renameFile() string {
	from := h.pick(isYAML)
	if from == "" {
		return h.addFile()
	}
	to := path.Join(path.Dir(from), fmt.Sprintf("renamed-%d.yaml", h.random.Intn(1000)))
	if h.random.Intn(3) == 0 {
		to = path.Join(h.folder(), path.Base(to))
	}
	h.files[to] = h.files[from]
	delete(h.files, from)
	return "rename " + from + " to " + to
}

func kustomizationFile(name string) bool { return path.Base(name) == "kustomization.yaml" }

func (h *history) referToMissing() string {
	name := h.pick(kustomizationFile)
	if name == "" || !strings.Contains(h.files[name], "resources:") {
		return h.changeFile()
	}
	missing := fmt.Sprintf("missing-%d.yaml", h.random.Intn(3))
	text := h.files[name]
	if strings.Contains(text, "resources: [") {
		text = strings.Replace(text, "resources: [", "resources: ["+missing+", ", 1)
	} else {
		text = strings.Replace(text, "resources:\n", "resources:\n- "+missing+"\n", 1)
	}
	h.files[name] = text
	return "refer to " + missing + " in " + name
}

func (h *history) addMissing() string {
	name := h.pick(func(name string) bool { return kustomizationFile(name) && strings.Contains(h.files[name], "missing-") })
	if name == "" {
		return h.referToMissing()
	}
	for i := range 3 {
		missing := fmt.Sprintf("missing-%d.yaml", i)
		if strings.Contains(h.files[name], missing) {
			h.files[path.Join(path.Dir(name), missing)] = named(fmt.Sprintf("was-missing-%d", i))
		}
	}
	return "add what is missing for " + name
}

func (h *history) addKustomization() string {
	dir := h.folder()
	name := path.Join(dir, "kustomization.yaml")
	if _, there := h.files[name]; there {
		delete(h.files, name)
		return "delete " + name
	}
	var resources []string
	for other := range h.files {
		if path.Dir(other) == dir && isYAML(other) && !kustomizationFile(other) {
			resources = append(resources, path.Base(other))
		}
	}
	slices.Sort(resources)
	h.files[name] = "resources: [" + strings.Join(resources, ", ") + "]\ncommonAnnotations: {made: \"here\"}\n"
	return "add " + name
}

func (h *history) switchComponent() string {
	i := h.random.Intn(len(h.specs))
	spec := h.specs[i]
	components := []string{"components/memorystore", "components/cymbal-branding", "components/without-loadgenerator",
		"../../components/debug", "../../components/quota", "../components/service-mesh-istio"}
	component := components[h.random.Intn(len(components))]
	if j := slices.Index(spec.Components, component); j >= 0 {
		spec.Components = slices.Delete(slices.Clone(spec.Components), j, j+1)
	} else {
		spec.Components = append(slices.Clone(spec.Components), component)
	}
	spec.IgnoreMissingComponents = h.random.Intn(4) > 0
	h.specs[i] = spec
	return fmt.Sprintf("switch component %s of %q", component, spec.Path)
}

func (h *history) changeVariable() string {
	i := h.random.Intn(len(h.specs))
	spec := h.specs[i]
	values := []string{"1", "two words", "true", "a: b", "", "line\nbreak", "${other}"}
	spec.Substitute = &build.Substitution{Strict: h.random.Intn(2) == 0, Always: h.random.Intn(2) == 0,
		Variables: map[string]string{"one": values[h.random.Intn(len(values))]}}
	h.specs[i] = spec
	return fmt.Sprintf("change variable of %q", spec.Path)
}

func (h *history) unrelated() string {
	name := fmt.Sprintf("elsewhere/%d.txt", h.random.Intn(5))
	h.files[name] = fmt.Sprint(h.random.Int())
	return "change " + name
}

// repair brings back files of the first commit, so that most builds succeed
// most of the time.
func (h *history) repair() string {
	for name := range h.files {
		if strings.Contains(name, "added-") || strings.Contains(name, "renamed-") {
			delete(h.files, name)
		}
	}
	for _, name := range sortedKeys(h.first) {
		content := h.first[name]
		if _, there := h.files[name]; !there || h.random.Intn(2) == 0 {
			h.files[name] = content
		}
	}
	for name := range h.files {
		if _, first := h.first[name]; !first && kustomizationFile(name) {
			delete(h.files, name)
		}
	}
	return "repair"
}
