package credentials

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// context is the name of cluster and context in the kubeconfigs written here.
const contextName = "localcluster"

// REST returns a client configuration for user at the API server url, without a
// client-side rate limit.
func (f Folder) REST(user, url string) (*rest.Config, error) {
	token, err := f.Token(user)
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host:            url,
		BearerToken:     token,
		TLSClientConfig: rest.TLSClientConfig{CAFile: f.Path(CACert)},
		QPS:             -1,
	}, nil
}

// WriteKubeconfig writes a kubeconfig for user at the API server url to path:
// whole or not at all, readable by the owner only, authority and token inside.
func (f Folder) WriteKubeconfig(path, user, url string) error {
	token, err := f.Token(user)
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(f.Path(CACert))
	if err != nil {
		return err
	}
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{
			contextName: {Server: url, CertificateAuthorityData: authority},
		},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{user: {Token: token}},
		Contexts: map[string]*clientcmdapi.Context{
			contextName: {Cluster: contextName, AuthInfo: user},
		},
		CurrentContext: contextName,
	})
	if err != nil {
		return fmt.Errorf("encode kubeconfig: %w", err)
	}
	return writeAtomically(path, data)
}

// writeAtomically puts data at path by renaming a finished file over it. The
// temporary file is made with mode 0600 and removed on failure.
func writeAtomically(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if closing := tmp.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}
