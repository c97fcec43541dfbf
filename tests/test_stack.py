import importlib.util
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from mmrkd.stack import EXTRA_OF, FIX, OPTIONAL, REQUIRED, check_stack, installed_version, is_fork, require_extra


@pytest.fixture
def install(monkeypatch):
    """Puts a package of some version into ``sys.modules``."""

    def install(version):
        module = types.ModuleType('mmrkd_fake_package')
        module.__version__ = version
        monkeypatch.setitem(sys.modules, 'mmrkd_fake_package', module)

    return install


def test_the_installed_stack_fits():
    check_stack()
    assert {'torch', 'mmengine', 'mmcv'} <= set(REQUIRED)


@pytest.mark.parametrize('version', ['2.0.0', '2.0', '2.0.1', '2.11.0+cu130', '2.1.0rc1', '2.99.99'])
def test_versions_that_fit(install, version):
    install(version)
    check_stack({'mmrkd_fake_package': ('2.0.0', '3.0.0')})


@pytest.mark.parametrize('version', ['1.13.1', '1.99', '3.0.0', '3.0', '3.1.0+cpu'])
def test_versions_that_do_not_fit(install, version):
    install(version)
    with pytest.raises(ImportError) as error:
        check_stack({'mmrkd_fake_package': ('2.0.0', '3.0.0')})
    message = str(error.value)
    assert f'mmrkd needs mmrkd_fake_package>=2.0.0,<3.0.0, but found mmrkd_fake_package {version}' in message
    assert FIX in message


def test_the_second_number_counts(install):
    install('0.9.1')
    with pytest.raises(ImportError, match='found mmrkd_fake_package 0.9.1'):
        check_stack({'mmrkd_fake_package': ('0.10.0', '1.0.0')})
    install('0.10.7')
    check_stack({'mmrkd_fake_package': ('0.10.0', '1.0.0')})


def test_a_package_that_is_not_there_is_named_with_the_fix():
    with pytest.raises(ImportError) as error:
        check_stack({'mmrkd_no_such_package': ('2.0', '3.0')})
    message = str(error.value)
    assert 'mmrkd needs mmrkd_no_such_package>=2.0,<3.0, but importing it failed' in message
    assert 'No module named' in message
    assert 'pip install' in message


def test_the_fix_pins_two_whole_stacks():
    for package in ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmpretrain', 'mmdet', 'mmpretrain'):
        assert f'{package}==' in FIX


class TestOptionalLibraries:
    def versions(self, monkeypatch, **installed):
        def version(name):
            if name in installed:
                return installed[name]
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, 'version', version)

    def test_both_are_looked_at_and_neither_is_imported(self, monkeypatch):
        assert set(OPTIONAL) == {'mmdet', 'mmpretrain'}
        monkeypatch.setattr('importlib.import_module', lambda name: pytest.fail(f'{name} was imported'))
        self.versions(monkeypatch, **{'onedl-mmdetection': '3.5.1', 'mmpretrain': '1.2.0'})
        assert installed_version('mmdet') == '3.5.1' and installed_version('mmpretrain') == '1.2.0'
        check_stack({})

    def test_one_may_be_absent(self, monkeypatch):
        self.versions(monkeypatch, mmpretrain='1.2.0')
        check_stack({})
        self.versions(monkeypatch)
        check_stack({})

    @pytest.mark.parametrize(
        'distribution, name, version',
        [
            ('mmdet', 'mmdet', '2.28.2'),
            ('onedl-mmdetection', 'mmdet', '4.0.0'),
            ('mmpretrain', 'mmpretrain', '1.0.0rc8'),
        ],
    )
    def test_one_that_is_there_must_fit(self, monkeypatch, distribution, name, version):
        self.versions(monkeypatch, **{distribution: version})
        with pytest.raises(ImportError, match=f'mmrkd needs {name}>=.*, but found {name} {version}'):
            check_stack({})


class TestExtras:
    def without(self, monkeypatch, spec=None):
        monkeypatch.setattr('importlib.util.find_spec', lambda name: spec)

    def test_the_error_says_which_extra_to_install(self, monkeypatch):
        self.without(monkeypatch)
        with pytest.raises(
            ImportError, match=r"for mmseg, which is not installed.*pip install 'mmrkd\[segmentation\]'"
        ):
            require_extra('mmseg')

    def test_how_pose_estimation_is_installed(self, monkeypatch):
        self.without(monkeypatch)
        with pytest.raises(ImportError, match=r"for mmpose, which is not installed.* 'mmrkd\[pose\]'"):
            require_extra('mmpose')

    def test_a_folder_of_that_name_is_no_package(self, monkeypatch):
        self.without(monkeypatch, types.SimpleNamespace(origin=None))
        with pytest.raises(ImportError, match='which is not installed'):
            require_extra('mmseg')

    def test_what_is_there_passes_and_so_does_what_no_extra_installs(self, monkeypatch):
        self.without(monkeypatch, types.SimpleNamespace(origin='/some/where/mmseg/__init__.py'))
        for name in ('mmseg', 'mmdet', None):
            require_extra(name)

    def test_every_extra_is_one_of_the_setup(self):
        setup = (Path(__file__).resolve().parents[1] / 'setup.py').read_text()
        assert EXTRA_OF and all(f"'{extra}': [" in setup for extra in EXTRA_OF.values())

    def test_the_fork_is_told_from_the_original(self, monkeypatch):
        self.install(monkeypatch, 'onedl-mmsegmentation', '1.4.2')
        assert is_fork('mmseg') and installed_version('mmseg') == '1.4.2' and not is_fork('mmdet')

    def test_one_that_does_not_fit_is_named(self, monkeypatch):
        self.install(monkeypatch, 'mmsegmentation', '0.30.0')
        with pytest.raises(ImportError, match='mmrkd needs mmseg>=1.2.0,<2.0.0, but found mmseg 0.30.0'):
            check_stack({})

    def install(self, monkeypatch, distribution, found):
        def version(name):
            if name != distribution:
                raise metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(metadata, 'version', version)

    @pytest.mark.parametrize('library', ['mmseg', 'mmpose'])
    def test_the_library_of_a_named_config_is_not_installed_behind_the_users_back(self, monkeypatch, library):
        from mmrkd.models import teacher

        self.without(monkeypatch)
        monkeypatch.setattr(teacher, 'get_config', lambda path: pytest.fail('mmengine would call pip'))
        with pytest.raises(ImportError, match=f'for {library}, which is not installed'):
            teacher.read_config_file(f'{library}::some/config.py')

    def test_a_config_of_a_library_that_is_absent_names_the_extra(self, monkeypatch, tmp_path):
        from mmrkd.engine.launch import read_config
        from mmrkd.models.teacher import load_model_config

        (tmp_path / 'config.py').write_text("default_scope = 'mmseg'")
        self.without(monkeypatch)
        for fail in (
            lambda: read_config(str(tmp_path / 'config.py')),
            lambda: load_model_config(dict(type='EncoderDecoder', _scope_='mmseg')),
            lambda: load_model_config(dict(default_scope='mmseg', model=dict(type='EncoderDecoder'))),
        ):
            with pytest.raises(ImportError, match="Install the extra 'segmentation'"):
                fail()


@pytest.mark.skipif(importlib.util.find_spec('mmseg') is not None, reason='mmseg is installed')
def test_a_config_that_inherits_from_an_absent_library_names_the_extra(tmp_path):
    from mmrkd.engine.launch import read_config

    name = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
    (tmp_path / 'config.py').write_text(f'_base_ = {name!r}')
    for path in (name, str(tmp_path / 'config.py')):
        with pytest.raises(ImportError, match="Install the extra 'segmentation'"):
            read_config(path)
