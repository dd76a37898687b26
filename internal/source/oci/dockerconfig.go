package oci

import (
	"encoding/json"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// mostConfig is the largest docker config that is read: that of a Secret.
const mostConfig = 1 << 20

// credentials are those for a repository, in the order in which they are tried.
func (a Auth) credentials(repository name.Repository) ([]authn.AuthConfig, error) {
	var all []authn.AuthConfig
	if a.Username != "" || a.Password != "" {
		all = append(all, authn.AuthConfig{Username: a.Username, Password: a.Password})
	}
	var found []configEntry
	for i, data := range a.DockerConfigs {
		entries, err := readDockerConfig(data, repository.Name())
		if err != nil {
			return nil, &fault{kind: gitops.Denied, reason: ReasonAuthentication, text: fmt.Sprintf("docker config %d of %d cannot be used: %v", i+1, len(a.DockerConfigs), err), remedy: "check the secrets that it names"}
		}
		found = append(found, entries...)
	}
	// As the kubelet does it: what is sorted last is the most particular.
	slices.SortStableFunc(found, func(x, y configEntry) int { return strings.Compare(y.place, x.place) })
	for _, entry := range found {
		all = append(all, entry.credential)
	}
	return all, nil
}

// configEntry is a credential of a docker config, with where it is for.
type configEntry struct {
	place      string
	credential authn.AuthConfig
}

// readDockerConfig reads the credentials of a docker config that are for a repository.
// It has them under "auths", or as a whole in its older form. Errors do not quote it.
func readDockerConfig(data []byte, repository string) ([]configEntry, error) {
	if len(data) > mostConfig {
		return nil, fmt.Errorf("it has more than %d bytes", mostConfig)
	}
	var config struct {
		Auths map[string]json.RawMessage `json:"auths"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("it is not JSON of a docker config")
	}
	if config.Auths == nil {
		// Fields that are none of a credential are passed over below.
		if err := json.Unmarshal(data, &config.Auths); err != nil {
			return nil, fmt.Errorf("it is not JSON of a docker config")
		}
	}
	var found []configEntry
	for place, raw := range config.Auths {
		place = normalPlace(place)
		if !matchPlace(place, repository) {
			continue
		}
		var credential authn.AuthConfig
		if err := json.Unmarshal(raw, &credential); err != nil {
			return nil, fmt.Errorf("its entry for the registry is not a credential")
		}
		if credential != (authn.AuthConfig{}) {
			found = append(found, configEntry{place, credential})
		}
	}
	// The order of a map is none.
	slices.SortFunc(found, func(x, y configEntry) int {
		return strings.Compare(fmt.Sprint(x.place, x.credential), fmt.Sprint(y.place, y.credential))
	})
	return found, nil
}

// normalPlace is a key of a docker config without scheme and version, as host and path.
func normalPlace(key string) string {
	for _, scheme := range []string{"https://", "http://"} {
		key = strings.TrimPrefix(key, scheme)
	}
	host, rest, _ := strings.Cut(key, "/")
	if host == "docker.io" {
		host = name.DefaultRegistry
	}
	for _, version := range []string{"v1", "v2"} {
		if rest == version || strings.HasPrefix(rest, version+"/") {
			rest = strings.TrimPrefix(rest, version)
			break
		}
	}
	return strings.TrimSuffix(host+"/"+strings.Trim(rest, "/"), "/")
}

// matchPlace tells whether a place is that of a repository: its host, in which "*"
// stands for any text without a dot, and the beginning of its path.
func matchPlace(place, repository string) bool {
	pattern, prefix, _ := strings.Cut(place, "/")
	host, rest, _ := strings.Cut(repository, "/")
	if prefix != "" && rest != prefix && !strings.HasPrefix(rest, prefix+"/") {
		return false
	}
	patternHost, patternPort := splitPort(pattern)
	host, port := splitPort(host)
	patterns, names := strings.Split(patternHost, "."), strings.Split(host, ".")
	if patternPort != port || len(patterns) != len(names) {
		return false
	}
	for i := range names {
		if ok, err := path.Match(patterns[i], names[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func splitPort(host string) (name, port string) {
	if name, port, err := net.SplitHostPort(host); err == nil {
		return name, port
	}
	return host, ""
}
