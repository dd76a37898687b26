package main

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAppIsAsLargeAsTheFieldsBenchmark(t *testing.T) {
	t.Parallel()
	f, err := newFleet(1000, 20)
	if err != nil {
		t.Fatal(err)
	}
	data, err := f.file(999, 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) < 3600 || len(data) > 4000 {
		t.Errorf("the file of an app has %d bytes, want about 3.8 kB", len(data))
	}
}

func TestObjectsAreRenderedWithTheirOwner(t *testing.T) {
	t.Parallel()
	f, err := newFleet(30, 7)
	if err != nil {
		t.Fatal(err)
	}
	items, err := f.objects(8, 2)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, it := range items {
		paths = append(paths, it.path)
		var o object
		if err := json.Unmarshal(it.body, &o); err != nil {
			t.Fatal(err)
		}
		if o.Metadata.Labels[ownerName] != "app-0009" || o.Metadata.Labels[ownerNamespace] != controlNamespace {
			t.Errorf("%s has labels %v", it.path, o.Metadata.Labels)
		}
		if it.kind == "Deployment" && !hasVersion(2)(o) {
			t.Errorf("the Deployment has not version 2: %v", o.Metadata.Labels)
		}
	}
	want := []string{
		"/api/v1/namespaces/bench-02/serviceaccounts/app-0009", "/api/v1/namespaces/bench-02/services/app-0009",
		"/apis/apps/v1/namespaces/bench-02/deployments/app-0009", "/apis/networking.k8s.io/v1/namespaces/bench-02/ingresses/app-0009",
	}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

func TestNoObjectLooksDriftedBeforeTheDrift(t *testing.T) {
	t.Parallel()
	f, err := newFleet(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	items, err := f.objects(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, change := range foreignChanges() {
		var before, after object
		if err := json.Unmarshal(items[i].body, &before); err != nil {
			t.Fatal(err)
		}
		patch, err := json.Marshal(change.patch)
		if err == nil {
			err = json.Unmarshal(items[i].body, &after)
		}
		if err == nil {
			after.Spec.Ports = nil // a merge patch replaces the list
			err = json.Unmarshal(patch, &after)
		}
		if err != nil {
			t.Fatal(err)
		}
		if change.drifted(before) || !change.drifted(after) {
			t.Errorf("%s: drifted is %t before the change and %t after it", items[i].kind, change.drifted(before), change.drifted(after))
		}
	}
}

func TestSamplesAreSpreadOverTheFleet(t *testing.T) {
	t.Parallel()
	f, err := newFleet(90, 1)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for i := range 30 {
		seen[f.spread(i, 30)/3] = true
	}
	if len(seen) != 30 {
		t.Errorf("30 samples fall into %d of 30 neighbourhoods", len(seen))
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	programs := []string{"-plumb", "fleet_test.go", "-localcluster", "fleet_test.go"}
	for name, row := range map[string]struct {
		args []string
		err  string
		want func(*options) bool
	}{
		"all by default": {nil, "", func(o *options) bool {
			return len(o.sizes) == 3 && o.rounds == 3 && o.samples >= 30 && o.idle == time.Minute && len(o.scenarios) == len(scenarios())
		}},
		"quick is small":            {[]string{"-quick"}, "", func(o *options) bool { return len(o.sizes) == 1 && o.rounds == 1 }},
		"what is given beats quick": {[]string{"-quick", "-rounds", "2"}, "", func(o *options) bool { return o.rounds == 2 && o.samples == 10 }},
		"some scenarios": {[]string{"-scenarios", "drift,idle"}, "", func(o *options) bool {
			return o.scenarios[drift] && o.scenarios[idle] && !o.scenarios[restart]
		}},
		"sizes are sorted":    {[]string{"-sizes", "300, 20"}, "", func(o *options) bool { return cmp.Equal(o.sizes, []int{20, 300}) }},
		"an unknown scenario": {[]string{"-scenarios", "drfit"}, `"drfit" is none of`, nil},
		"no number of apps":   {[]string{"-sizes", "0"}, `"0" is not a number of apps`, nil},
		"no rounds":           {[]string{"-rounds", "0"}, "must be 1 or more", nil},
		"no such program":     {[]string{"-plumb", "missing"}, "make build makes it", nil},
		"a stray argument":    {[]string{"quick"}, `unexpected argument "quick"`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, err := parseOptions(append(append([]string{}, programs...), row.args...), io.Discard)
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("error is %v, want one with %q", err, row.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !row.want(o) {
				t.Errorf("options are %+v", o)
			}
		})
	}
}

func TestTenants(t *testing.T) {
	t.Parallel()
	f, err := newFleet(3, 2)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := f.file(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if f.tenancy, err = newTenancy(); err != nil {
		t.Fatal(err)
	}
	file, err := f.file(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := string(file)
	for name, value := range literals() {
		if !strings.Contains(text, "${"+name+"}") {
			t.Errorf("the manifest does not use the variable %s", name)
		}
		text = strings.ReplaceAll(text, "${"+name+"}", value)
	}
	if diff := cmp.Diff(string(plain), text); diff != "" {
		t.Errorf("with its variables replaced the manifest is another one (-without tenants +with):\n%s", diff)
	}
	secret, err := f.secretFile(1)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(secret, "secret of") || !strings.Contains(secret, "password: ENC[") {
		t.Errorf("the Secret is not encrypted:\n%s", secret)
	}
}
